"""`python -m jcache`: the `jcache` command where only its Python is at hand."""

if __name__ == "__main__":
    from jcache.cli import main

    main(prog_name="python -m jcache")
