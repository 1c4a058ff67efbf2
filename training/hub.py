"""The finished policy on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token

from router_r1_graph import ConfigError, RouterR1Error
from router_r1_graph.words import shortened

from .config import HubConfig


class UploadError(RouterR1Error):
    """The policy could not be uploaded; its folder is complete."""

    exit_code = 1


def require_token(config: HubConfig) -> None:
    """Check that there is a token for the upload, before anything is paid.

    Raises:
        ConfigError: there is no token.
    """
    if config.repo and not get_token():
        raise ConfigError(
            f"hub.repo {config.repo}: there is no token of the hub; set HF_TOKEN, or log in with "
            "`hf auth login`"
        )


def upload(config: HubConfig, policy: Path) -> str:
    """Upload a policy folder, and return its address.

    Args:
        config: the repository.
        policy: the folder.

    Raises:
        UploadError: the hub refused, or did not answer; names the command for another try.
    """
    assert config.repo
    api = HfApi()
    try:
        repo = api.create_repo(config.repo, private=config.private, exist_ok=True)
        api.upload_folder(
            repo_id=config.repo, folder_path=policy, commit_message="A Router-R1 policy"
        )
    # Any error of the client or the network: the policy is whole, and the run is over.
    except Exception as error:
        private = " --private" if config.private else ""
        raise UploadError(
            f"hub.repo {config.repo}: the policy could not be uploaded "
            f"({_one_line(error)}); it is in {policy}, and this uploads it: "
            f"hf upload {config.repo} {policy} .{private}"
        ) from None
    return str(repo)


def _one_line(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    token = get_token()
    return shortened(text.replace(token, "[token]") if token else text, 300)
