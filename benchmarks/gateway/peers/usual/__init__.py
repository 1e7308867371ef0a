"""The gateway as one would write it from the libraries' own front pages: a DRF view that calls with `requests`."""
