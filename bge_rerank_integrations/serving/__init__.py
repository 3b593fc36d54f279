"""One engine for many processes: an HTTP server, a client for it and for hosted services, Ray."""
