"""The limit of what may be paid: a purse for many calls or runs at once."""

from __future__ import annotations

import asyncio

from ..words import counted, unconfirmed, usd


class Purse:
    """The money that is left; a call or run reserves its worst case until its cost is known.

    Args:
        budget_usd: all that may be paid.
    """

    def __init__(self, budget_usd: float) -> None:
        self.budget_usd = budget_usd
        self.left_usd = budget_usd
        self.paid_usd = self.uncertain_usd = 0.0
        self.calls = 0
        self.refused = 0
        self._settled = asyncio.Event()

    @property
    def stopped(self) -> str:
        """The message if something was not asked for lack of money; "" = all was asked."""
        if not self.refused:
            return ""
        paid = f"{usd(self.paid_usd)} paid{unconfirmed(self.uncertain_usd)}"
        return (
            f"Stopped at the budget of {usd(self.budget_usd)} ({paid}): "
            f"{counted(self.refused, 'run')} not made. Go on by --resume with another budget."
        )

    async def hold(self, amount: float) -> bool:
        """Reserve an amount, once there is room for it; False = there will be none."""
        while amount > self.left_usd or self.left_usd < 0:
            if not self.calls:
                self.refused += 1
                return False
            await self._settled.wait()
        self.left_usd -= amount
        self.calls += 1
        return True

    def settle(self, held_usd: float, paid_usd: float, uncertain_usd: float) -> None:
        """Pay for a call; the most that it may cost besides is gone as well."""
        self.left_usd += held_usd - paid_usd - uncertain_usd
        self.paid_usd += paid_usd
        self.uncertain_usd += uncertain_usd
        self.calls -= 1
        self._settled.set()
        self._settled = asyncio.Event()
