"""One module for each library: a `Side(url, prefix)` with the calls that it has, by the names that Django gives them."""
