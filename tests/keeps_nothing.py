"""The command line with a reply store that keeps nothing: `make crash` has to notice it."""

from router_r1_graph.candidates.store_file import StoreFile
from router_r1_graph.cli import main

if __name__ == "__main__":
    StoreFile.keep = lambda *_: None
    main()
