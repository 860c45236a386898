"""Put load on running servers, and check what they promise then; see phases.py."""

import sys

from .phases import main

sys.exit(main())
