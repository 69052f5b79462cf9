"""What all views can do."""

import textwrap

from bsa import output_file


def check(function, what, kind):
    """TypeError, if that is not what the function of bsa.views makes a view of."""
    if not isinstance(what, kind):
        raise TypeError(f"{function}() needs a bsa.{kind.__name__}, not {type(what).__name__}")


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
        """Write an SVG file, which follows its viewer's preference for light or dark.

        InvalidParamError: the name ends in something else than .svg, say .png: that is what plot()
        and matplotlib are for.
        """
        output_file.check_ending(path, ".svg", "for others use plot().figure.savefig()")
        output_file.write(path, str(self.picture()).encode())

    def plot(self, ax=None):
        """Draw with matplotlib, into `ax` or the current axes, and return the axes.

        ImportError: matplotlib is not installed.
        """
        from bsa.views.figure import axes

        ax = axes(ax)
        self._plot(ax)
        return ax

    def __repr__(self):
        what = textwrap.shorten(self.picture().description, 120, placeholder=" ...")
        return f"<bsa.views.{type(self).__name__}: {what}>"

    def _repr_html_(self):
        return self.picture().fragment()
