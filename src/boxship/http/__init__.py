"""HTTP/1.1 over unix and TCP sockets: server, router, hijack, client."""
