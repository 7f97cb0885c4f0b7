"""What stands behind the transports: emulators, their parts, and what runs on them."""
