"""The command line ``siam-tracker``: one file a verb, each imported only when it is called."""
