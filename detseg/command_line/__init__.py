"""The command line: commands, reading of words and files into options, messages for wrong ones, help. No torch."""
