"""What people see: console, result folders, pictures."""
