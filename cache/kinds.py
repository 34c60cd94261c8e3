"""The kinds of media. Not in `schema`, so that command lines can use them without importing numpy."""

KINDS = VIDEO, IMAGE = ("video", "image")
