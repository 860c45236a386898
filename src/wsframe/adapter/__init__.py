"""What every adapter is made of. Nothing here has a socket, an event loop, a thread or a clock of its own."""
