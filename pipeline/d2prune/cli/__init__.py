"""The `d2prune` command. Each module holds a family of commands: parse, call the library, print."""
