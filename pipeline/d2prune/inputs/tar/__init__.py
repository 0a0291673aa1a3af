"""Reading and writing tar bytes."""
