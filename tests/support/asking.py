"""A program that asks what can be asked of names, and prints what it is told."""

# All questions that fsspec has about names.
ASK = """
import sys
import fsspec
fs, root = fsspec.url_to_fs(sys.argv[1])
def said(name, *args, **kwargs):
    try:
        got = getattr(fs, name)(*args, **kwargs)
        got = list(got) if name == "walk" else got
        print(name, args, kwargs, repr(got))
    except Exception as error:
        print(name, args, kwargs, type(error).__name__, error)
for path in (root, root + "/sub", root + "/a.bin", root + "/none", root + "/none/x"):
    for name in ("info", "exists", "isdir", "isfile"):
        said(name, path)
for path in (root, root + "/sub"):
    said("ls", path)
    said("ls", path, detail=False)
    said("find", path)
    said("find", path, detail=True)
    said("walk", path)
said("glob", root + "/*.bin")
said("glob", root + "/**")
said("cat_file", root + "/none/x", start=0, end=10)
said("cat_file", root + "/a.bin", start=2, end=10)
"""
