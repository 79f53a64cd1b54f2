"""Files and folders of data, wherever they are: on the disk, or in an archive, which is read in place as a folder."""
