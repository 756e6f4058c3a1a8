"""The machine a process runs on: MXNet, cores, GPUs, process pools."""
