"""Cameras: the ``Camera`` that everything holds, the projective geometry below it, rotations, undistortion."""
