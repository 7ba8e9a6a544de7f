"""What an administrator has said of single files: allow or deny, by hash."""
