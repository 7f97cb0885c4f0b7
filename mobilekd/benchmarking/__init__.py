"""Measuring deployed models where they will run: on a device, an emulator of it, or this host."""
