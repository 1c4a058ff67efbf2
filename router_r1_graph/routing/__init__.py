"""The first turn of a controller: whom it would ask, and how likely each candidate was."""
