"""The command `kogpt2-launch`."""
