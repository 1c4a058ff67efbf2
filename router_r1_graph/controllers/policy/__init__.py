"""A trained policy as the controller: in this process, or on a server that holds its weights."""
