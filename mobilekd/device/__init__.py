"""What runs a model on an arm64 device, real or emulated: the runner, the runtimes, CPU models, a virtual machine."""
