"""The same service, proxy and mail task as one would write them from the libraries' own front pages."""
