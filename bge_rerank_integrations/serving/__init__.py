"""One engine for many processes: an HTTP server, and the same server on Ray."""
