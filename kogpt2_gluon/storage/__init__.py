"""Files: written whole or not at all, on disk, on S3 and on Lustre; and MXNet parameter files."""
