"""ffmpeg's WHIP muxer, publishing H.264 and Opus test sources through a bridge.

One line of JSON on stdin is the plan, lines of JSON on stdout are events; see README.md here.
Debian's ffmpeg has no WHIP muxer: this is the one of the package imageio-ffmpeg.
"""

import json
import subprocess
import sys
import threading

import imageio_ffmpeg

# The gateway is the DTLS server, so ffmpeg must be the client. It hears no keyframe requests:
# a keyframe a second lets players begin. What Opus needs: 48 kHz, stereo.
ARGUMENTS = """
-hide_banner -nostats -loglevel warning -progress pipe:1
-re -f lavfi -i testsrc2=size=320x240:rate=15
-re -f lavfi -i sine=frequency=440
-pix_fmt yuv420p -c:v libx264 -profile:v baseline -preset ultrafast -tune zerolatency -bf 0 -g 15
-b:v 300k -c:a libopus -b:a 32k -ar 48000 -ac 2
-whip_flags dtls_active -f whip
""".split()


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def main():
    plan = json.loads(sys.stdin.readline())
    url = f"{plan['bridge'].rstrip('/')}/whip/{plan['name']}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *ARGUMENTS, url]
    ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop():
        sys.stdin.read()
        try:
            ffmpeg.stdin.write("q")
            ffmpeg.stdin.close()
            ffmpeg.wait(20)
        except (subprocess.TimeoutExpired, OSError):
            ffmpeg.terminate()

    threading.Thread(target=stop, daemon=True).start()
    frames = 0
    for line in ffmpeg.stdout:
        key, _, value = line.strip().partition("=")
        if key != "frame":
            continue
        # Frames are counted once the muxer has written its header: after ICE and DTLS.
        if int(value) > 0 and not frames:
            say("flowing")
        frames = int(value)
    code = ffmpeg.wait()
    if not frames:
        say("error", message=f"ffmpeg published nothing and ended with {code}")
        sys.exit(1)
    say("result", frames=frames, code=code)


main()
