"""`python -m brushwork`, the same as the command `brushwork`."""

from brushwork.cli.app import main

main()
