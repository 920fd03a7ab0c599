"""How the framework reaches a log: in this process or over the wire, chosen by a URL."""
