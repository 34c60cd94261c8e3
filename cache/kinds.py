"""The kinds of media; apart from the schema, so that command lines know them without numpy."""

KINDS = VIDEO, IMAGE = ("video", "image")
