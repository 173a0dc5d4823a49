"""``python -m usdrl_hub.cli``."""

from . import main

main()
