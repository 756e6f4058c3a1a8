"""Ask every host of a plan if it is ready."""
