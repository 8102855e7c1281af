"""The command line: `app` registers the commands, `options` and `settings` hold what they share."""
