"""Programs that train a policy on the library's traces. The library never imports them."""
