"""The command `kogpt2`: one file a verb."""
