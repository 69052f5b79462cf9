"""What all views can do."""

from bsa import output_file


class View:
    """Something that can be drawn: its data is gathered, and does not change any more.

    Subclasses say how: picture() makes the SVG, _plot(axes) draws the same with matplotlib.
    """

    def picture(self):
        """The SVG as a bsa.svg.Picture."""
        raise NotImplementedError

    def _plot(self, ax):
        raise NotImplementedError

    def save(self, path):
        """Write an SVG file, which follows its viewer's preference for light or dark."""
        output_file.write(path, str(self.picture()).encode())

    def plot(self, ax=None):
        """Draw with matplotlib, into `ax` or the current axes, and return the axes.

        ImportError: matplotlib is not installed.
        """
        from bsa.views.figure import axes

        ax = axes(ax)
        self._plot(ax)
        return ax

    def _repr_html_(self):
        return self.picture().fragment()
