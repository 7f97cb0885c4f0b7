"""What runs on a device: the runner, the runtimes it loads, and the CPUs that an emulator can be."""
