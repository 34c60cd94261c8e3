"""From a file to the frames that were asked for, in processes that may crash or hang."""
