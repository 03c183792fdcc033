"""Computing only what an input needs: gates on channels and layers, early exit."""
