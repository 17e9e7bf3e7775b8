"""Reading and writing of image files and CT volumes."""
