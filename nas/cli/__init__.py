"""The command line: each file parses one command, calls one library function, and prints."""
