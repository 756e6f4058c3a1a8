"""Where files lie besides a local disk: S3, FSx for Lustre, and the way between them."""
