"""Files and folders of data, wherever they are: on the disk, or in an archive or a video, which is read as a folder."""
