"""The page that `kogpt2 serve` shows at /."""
