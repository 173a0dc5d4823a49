"""Pictures and pages: recordings, class probabilities over time, maps of recordings, joint layouts."""
