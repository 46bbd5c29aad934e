"""What developers run on the checkout; nothing of it is imported by Weir."""
