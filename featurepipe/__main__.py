"""``python -m featurepipe`` is the ``featurepipe`` command."""

from featurepipe.cli import main

if __name__ == "__main__":
    main()
