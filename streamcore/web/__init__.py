"""Status pages, live updates and metrics over HTTP."""
