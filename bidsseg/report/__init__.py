"""Pages, pictures and tables made from outputs; changes no result."""
